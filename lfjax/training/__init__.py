"""Training: losses, data, one loop for all models."""

from lfjax.training.data import TrainingSet as TrainingSet
from lfjax.training.loop import Fitted as Fitted
from lfjax.training.loop import Options as Options
from lfjax.training.loop import fit as fit
from lfjax.training.steps import FromNNX as FromNNX
from lfjax.training.steps import LossWeights as LossWeights
