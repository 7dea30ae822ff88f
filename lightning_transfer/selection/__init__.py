"""Which backbone to fine-tune, by evidence: what fine-tuning gives, and how well scores foretell it."""

from lightning_transfer.selection.outcome import Outcome, find_outcome
from lightning_transfer.selection.select import RunnerUp, Selection, select
from lightning_transfer.selection.study import study
from lightning_transfer.selection.study_table import StudyRow, StudyTable

__all__ = ["Outcome", "RunnerUp", "Selection", "StudyRow", "StudyTable", "find_outcome", "select", "study"]
