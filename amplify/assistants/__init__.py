"""Assistants: the models that an experiment trains, by their `kind` in an experiment file."""

from amplify.assistants.fact_transformer import FactTransformerConfig
from amplify.assistants.language_model import LanguageModelConfig

ASSISTANTS = {"fact-transformer": FactTransformerConfig, "language-model": LanguageModelConfig}
