from lfjax.performance.bounds import (
    DEVICES as DEVICES,
    Device as Device,
    Roofline as Roofline,
    find_device as find_device,
    roofline as roofline,
    share as share,
)
from lfjax.performance.counting import Cost as Cost, cost as cost
