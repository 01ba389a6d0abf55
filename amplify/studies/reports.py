"""The reports that a study may name."""

from amplify.studies import overoptimisation_table
from amplify.studies.study import Report

REPORTS: dict[str, Report] = {
    "overoptimisation": overoptimisation_table.REPORT,
}
