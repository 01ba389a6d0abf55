"""Tasks about symbols: the five of Christiano, Shlegeris and Amodei 2018."""
