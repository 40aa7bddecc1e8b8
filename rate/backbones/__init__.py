"""Backbones: sequence models with a memory that they carry from segment to segment.

A backbone is one class in one file, a subclass of `rate.backbones.base.Backbone`; its settings are
a dataclass derived from `rate.config.ModelConfig`, its `Config`. `rate.architecture` registers it.
"""
