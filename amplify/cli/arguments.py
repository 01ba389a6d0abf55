"""Arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import tyro

Folder = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT", help="the experiment's folder")
]
Json = Annotated[bool, tyro.conf.arg(help="print JSON")]
Cluster = Annotated[
    bool,
    tyro.conf.arg(help="this is one of several processes of a Slurm, Open MPI or TPU cluster"),
]
