"""`hilserl label`: a web page on which a person says which frames show success.

session        one dataset and its labels, while somebody labels it
frames         frames of an episode for a browser, decoded once
disagreements  single frames on which human and classifier disagreed
app            what the page asks for, over HTTP
serve          the server, on loopback, until Ctrl-C
"""
