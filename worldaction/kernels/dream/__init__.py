"""Whole dreams: the policy's decisions, the prior's steps and the success classifier over the horizon."""
