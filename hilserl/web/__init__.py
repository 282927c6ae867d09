"""What the pages that a browser opens share.

guard          who may talk to a server on this machine, and what its pages may load
theme.css      colours and type of every page
"""
