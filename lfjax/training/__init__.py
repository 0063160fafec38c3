"""Training: losses, data, one loop for all models."""

from lfjax.training.data import TrainingSet as TrainingSet
from lfjax.training.loop import Fitted as Fitted
from lfjax.training.loop import Options as Options
from lfjax.training.loop import fit as fit
from lfjax.training.model_file import TrainedModel as TrainedModel
from lfjax.training.model_file import read_model as read_model
from lfjax.training.model_file import small_model as small_model
from lfjax.training.model_file import write_model as write_model
from lfjax.training.recipe import Recipe as Recipe
from lfjax.training.steps import FromNNX as FromNNX
from lfjax.training.steps import LossWeights as LossWeights
