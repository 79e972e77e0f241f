"""Selection of a method: the methods that fit a model and a time budget, ranked on the user's own images."""

from faithmap.selection.advice import advice
from faithmap.selection.candidates import explainers_for
from faithmap.selection.choice import SCORES, Choice, LeftOut, Ranked, ScoreName
from faithmap.selection.ranking import Progress, choose

__all__ = ["SCORES", "Choice", "LeftOut", "Progress", "Ranked", "ScoreName", "advice", "choose", "explainers_for"]
