"""Longhaul: low-communication training over an emulated WAN, measured, compared, projected."""
