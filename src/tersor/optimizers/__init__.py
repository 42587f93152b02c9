"""Optimizers.

A name and parameters come in, a torch optimizer goes out, or the reason why one was chosen. Nothing here
runs a training loop of the user's length.
"""

# Each module registers its recipe when it is imported.
from tersor.optimizers import adafactor as adafactor
from tersor.optimizers import adagrad as adagrad
from tersor.optimizers import adam as adam
from tersor.optimizers import adamw as adamw
from tersor.optimizers import lion as lion
from tersor.optimizers import muon as muon
from tersor.optimizers import nadamw as nadamw
from tersor.optimizers import prodigy as prodigy
from tersor.optimizers import rmsprop as rmsprop
from tersor.optimizers import schedule_free as schedule_free
from tersor.optimizers import sgd as sgd
