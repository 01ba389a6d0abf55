"""The reports that a study may name. Another one is another line."""

from amplify.studies import (
    alarm_table,
    digits_table,
    families_table,
    overoptimisation_table,
    oversight_table,
    restarts_table,
    reviews_needed_table,
)
from amplify.studies.study import Report

REPORTS: dict[str, Report] = {
    "alarm": alarm_table.REPORT,
    "digits": digits_table.REPORT,
    "families": families_table.REPORT,
    "overoptimisation": overoptimisation_table.REPORT,
    "oversight": oversight_table.REPORT,
    "restarts": restarts_table.REPORT,
    "reviews-needed": reviews_needed_table.REPORT,
}
