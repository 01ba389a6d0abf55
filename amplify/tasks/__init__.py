"""Tasks: one file each. `TASKS` names those that an experiment file may choose."""

from amplify.tasks.assignments import Assignments
from amplify.tasks.documents import Documents
from amplify.tasks.permutation import Permutation
from amplify.tasks.search import Search
from amplify.tasks.shortest_path import ShortestPath
from amplify.tasks.union_find import UnionFind
from amplify.tasks.wildcard import Wildcard

TASKS = {
    "assignments": Assignments,
    "documents": Documents,
    "permutation": Permutation,
    "search": Search,
    "shortest-path": ShortestPath,
    "union-find": UnionFind,
    "wildcard": Wildcard,
}
