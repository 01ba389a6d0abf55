"""Tasks, one file each. `TASKS` maps the `kind` of a `[task]` section to its class."""

from amplify.tasks.algorithmic.assignments import Assignments
from amplify.tasks.algorithmic.permutation import Permutation
from amplify.tasks.algorithmic.shortest_path import ShortestPath
from amplify.tasks.algorithmic.union_find import UnionFind
from amplify.tasks.algorithmic.wildcard import Wildcard
from amplify.tasks.essays.claims import Claims
from amplify.tasks.essays.task import Essays
from amplify.tasks.sentences.task import Sentences
from amplify.tasks.text.documents import Documents
from amplify.tasks.text.search import Search

TASKS = {
    "assignments": Assignments,
    "claims": Claims,
    "documents": Documents,
    "essays": Essays,
    "permutation": Permutation,
    "search": Search,
    "sentences": Sentences,
    "shortest-path": ShortestPath,
    "union-find": UnionFind,
    "wildcard": Wildcard,
}
