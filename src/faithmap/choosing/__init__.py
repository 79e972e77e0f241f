"""Which method to use: those that fit a model and a time, ranked on the user's own photographs.

On a floor of its own, above methods and metrics, which do not know each other: a choice asks both.
"""

from faithmap.choosing.advice import advice
from faithmap.choosing.choice import SCORES, Choice, LeftOut, Ranked, ScoreName
from faithmap.choosing.contest import Progress, choose
from faithmap.choosing.entries import explainers_for

__all__ = ["SCORES", "Choice", "LeftOut", "Progress", "Ranked", "ScoreName", "advice", "choose", "explainers_for"]
