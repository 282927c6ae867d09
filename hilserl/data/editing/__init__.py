"""Edit datasets: always into a new folder, the source is never written.

`episodes` keeps, drops, splits and merges; `idle` trims; `success` marks; `upgrade` brings v2.1 to v3.0;
`describe` and `crop` only look. All that write a v3.0 dataset go through `compose`.
"""
