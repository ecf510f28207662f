"""The accuracy of a distilled set, made here or elsewhere.

Reading a file: `formats` (with `structures` and `image_folder`) reads named tensors, and
`distilled_set` finds the images and labels among them. `interpretation` converts both to what the
target set has, with `layout` (axes), `pixel_ranges` (values) and `label_forms` (labels).
Evaluating: `fresh_networks` trains networks on the set, `dd_ranking` computes scores.
"""
