"""A small map of NDCs to RxNorm and ATC, with two rows that cannot be used."""

MAP = "ndc,rxcui,atc\n0002-1434-80,860975,\n000021435,,A10BA02\n00002143699,1,\nnonsense,860975,\n00002143799,,\n"
