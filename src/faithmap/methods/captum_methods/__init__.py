"""captum's methods behind this library's interface; captum itself is loaded when one of them is called."""

from faithmap.methods.captum_methods.deeplift import DeepLIFT
from faithmap.methods.captum_methods.gradientshap import GradientSHAP
from faithmap.methods.captum_methods.lrp import LRP
from faithmap.methods.captum_methods.modified import DeconvNet, GuidedBackprop
from faithmap.methods.captum_methods.surrogates import LIME, KernelSHAP

__all__ = ["LIME", "LRP", "DeconvNet", "DeepLIFT", "GradientSHAP", "GuidedBackprop", "KernelSHAP"]
