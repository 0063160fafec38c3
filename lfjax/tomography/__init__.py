"""Tomography and cryo-EM. Lengths in angstroms; conventions of RELION, see `lfjax.rotation`."""
