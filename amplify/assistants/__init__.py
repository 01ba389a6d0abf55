"""Assistants: one file a kind. `ASSISTANTS` names those that an experiment file may choose."""

from amplify.assistants.fact_transformer import FactTransformerConfig

ASSISTANTS = {"fact-transformer": FactTransformerConfig}
