from lfjax.models.compressed import Compressed as Compressed
from lfjax.models.convolutional import Convolutional as Convolutional
from lfjax.models.critic import PatchCritic as PatchCritic
from lfjax.models.forward_net import LinearForwardNet as LinearForwardNet
from lfjax.models.frozen import Frozen as Frozen, trainable as trainable
from lfjax.models.physics import Physics as Physics
from lfjax.models.unet import ViewUNet as ViewUNet
from lfjax.models.unfolded import UnfoldedISTA as UnfoldedISTA
