from lfjax.performance.bounds import (
    DEVICES as DEVICES,
    Device as Device,
    Roofline as Roofline,
    find_device as find_device,
    roofline as roofline,
    share as share,
)
from lfjax.performance.counting import Cost as Cost, cost as cost
from lfjax.performance.light_field_costs import (
    abstract_filter as abstract_filter,
    abstract_light_field as abstract_light_field,
    model_cost as model_cost,
    operator_costs as operator_costs,
    solver_costs as solver_costs,
)
