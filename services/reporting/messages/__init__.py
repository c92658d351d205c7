"""Results as a LIMS takes them in: one FHIR R4 transaction Bundle and one HL7 v2.5.1 ORU^R01 per specimen.

`results` says what is told of a specimen; `fhir` and `hl7` tell it. `python -m services.reporting.messages` makes both
of a report that is there, as those in docs/examples.
"""
