from lfjax.training.data import TrainingSet as TrainingSet
from lfjax.training.evaluation import Scores as Scores, evaluate as evaluate
from lfjax.training.loop import Fitted as Fitted, Options as Options, fit as fit
from lfjax.training.model_file import (
    TrainedModel as TrainedModel,
    read_model as read_model,
    small_model as small_model,
    write_model as write_model,
)
from lfjax.training.recipe import Recipe as Recipe
from lfjax.training.steps import FromNNX as FromNNX, LossWeights as LossWeights
