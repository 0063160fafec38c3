"""Texts of good files: a session, a recipe of a training, and atoms."""

SESSION = """\
[subject]
subject_id = "m17"
species = "Mus musculus"
sex = "F"
age = "P90D"
date_of_birth = 2026-01-04
weight = "21 g"

[session]
start = 2026-03-04T10:30:00+01:00
description = "Visual stimulation"
experimenter = ["Last, First"]
keywords = ["light field", "calcium imaging"]

[imaging]
location = "VISp"
excitation_nm = 488.0
depth_um = 150.0
"""
RECIPE = """\
[microscope]
preset = "20x0.5"
pixels_per_lenslet = 3

[volume]
z_um = [-10, 0, 10]
voxels_per_lenslet = 1
lenslets = 5

[tissue]
depth_um = 60
mean_free_path_um = 60
anisotropy = 0.93

[data]
pairs = "pairs.h5"
movies = ["a.h5", "b.tif"]
photons = 60.0

[model]
kind = "compressed"
layers = 2
width = 3
compress = 1

[losses]
volume = 1.0
light_field = 0.3

[training]
steps = 700
learning_rate = 0.008
"""
PDB = """\
CRYST1   20.000   20.000   20.000  90.00  90.00  90.00 P 1           1
ATOM      1  N   ALA A   1       1.104   2.207   3.500  1.00 12.00           N
ATOM      2  CA  ALA A   1       2.560   2.300   3.700  1.00 11.00           C
ATOM      3  C   ALA A   1       3.100   3.700   3.400  1.00 10.50           C
ATOM      4  O   ALA A   1       2.400   4.700   3.600  0.80 13.00           O
TER
END
"""
