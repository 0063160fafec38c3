"""From volumes to neurons: where they are."""

from lfjax.activity.localise import find_somata as find_somata
