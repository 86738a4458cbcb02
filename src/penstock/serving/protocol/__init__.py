"""Stubs of the Open Inference Protocol, generated from proto/open_inference.proto."""
