"""The memories: what reads the tokens of a segment and hands a state on to the next one.

A backbone is one class in one file, a subclass of `rate.backbones.base.Backbone`; its settings are
a dataclass derived from `rate.config.ModelConfig`, its `Config`. `rate.architecture` finds it.
"""
