"""predict: images in any number to masks, and a record a slice as it is done.

`plan` decides what is to be done and where it goes, and loads no network; `run` does it, as a pipeline: a thread takes
inputs off their list, others read ahead, the network sees whole batches, and what is done comes out in order.
Nothing is imported here: to plan needs no torch.
"""
