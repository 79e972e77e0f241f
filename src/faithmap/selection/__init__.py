"""Which method to use: those that fit a model and a time, ranked on the user's own photographs.

On a floor of its own, above methods and metrics, which do not know each other: a choice asks both.
"""

from faithmap.selection.advice import advice
from faithmap.selection.candidates import explainers_for
from faithmap.selection.choice import SCORES, Choice, LeftOut, Ranked, ScoreName
from faithmap.selection.ranking import Progress, choose

__all__ = ["SCORES", "Choice", "LeftOut", "Progress", "Ranked", "ScoreName", "advice", "choose", "explainers_for"]
