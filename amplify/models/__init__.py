"""Assistants: the models that an experiment trains, by their `kind` in an experiment file."""

from amplify.models.fact_transformer import FactTransformerConfig
from amplify.models.language_model import LanguageModelConfig

ASSISTANTS = {"fact-transformer": FactTransformerConfig, "language-model": LanguageModelConfig}
