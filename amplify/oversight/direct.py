"""Direct oversight: people or a language model answer questions without asking anything.

It is the baseline for what help is worth: the same overseers, questions and training as in
amplification, and no sub-questions.
"""

import dataclasses
from typing import Any

from amplify.overseers.human import HumanConfig
from amplify.overseers.language_model import LanguageModelOverseerConfig
from amplify.oversight.amplification import Amplification
from amplify.types import Task


@dataclasses.dataclass(frozen=True)
class Direct(Amplification):
    """`[oversight] kind = "direct"`."""

    def adapt_overseer(self, task: Task, overseer: Any) -> Any:
        """The overseer's section with no asks.

        Raises:
            ValueError: for overseers that cannot answer without asking: the task's own strategy,
                and models that learn to imitate it.
        """
        if isinstance(overseer, HumanConfig):
            for key, wanted in {"people": "real", "others": "nobody"}.items():
                if getattr(overseer, key) != wanted:
                    raise ValueError(
                        f'overseer.{key} must be "{wanted}" where oversight.kind = "direct":'
                        " whoever follows or learns the task's strategy must be able to ask"
                    )
        elif not isinstance(overseer, LanguageModelOverseerConfig):
            raise ValueError(
                'oversight.kind = "direct" needs people or a language model as overseer:'
                " overseer.kind must be human or language-model"
            )
        return dataclasses.replace(overseer, asks=0)
