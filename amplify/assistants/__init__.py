"""Assistants: one file a kind. `ASSISTANTS` names those that an experiment file may choose."""

from amplify.assistants.fact_transformer import FactTransformerConfig
from amplify.assistants.language_model import LanguageModelConfig

ASSISTANTS = {"fact-transformer": FactTransformerConfig, "language-model": LanguageModelConfig}
