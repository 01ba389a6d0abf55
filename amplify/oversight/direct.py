"""Direct oversight: people or a language model answer without asking sub-questions.

It is the baseline that shows what the assistant's help is worth: overseers, questions and training
are the same as in amplification.
"""

import dataclasses
from typing import Any

from amplify.overseers.human import HumanConfig
from amplify.overseers.language_model import LanguageModelOverseerConfig
from amplify.oversight.amplification import Amplification
from amplify.types import Task


@dataclasses.dataclass(frozen=True)
class Direct(Amplification):
    """Oversight without sub-questions: `[oversight] kind = "direct"`."""

    def adapt_overseer(self, task: Task, overseer: Any) -> Any:
        """Returns the overseer's section with a budget of no asks.

        Args:
            task: not used.
            overseer: the section `[overseer]` of the experiment file.

        Raises:
            ValueError: the overseer cannot answer without asking: it is the task's own strategy, or
                a model that learns to imitate it.
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
