"""The subjects of MMLU and of C-Eval, and the groups that both are told in."""

from __future__ import annotations

from collections.abc import Mapping

_MMLU = {
    "stem": """
        abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning
    """,
    "humanities": """
        formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions
    """,
    "other": """
        business_ethics college_medicine human_aging management marketing medical_genetics miscellaneous
        nutrition professional_accounting professional_medicine virology global_facts clinical_knowledge
    """,
    "social": """
        econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics
        high_school_microeconomics high_school_psychology human_sexuality professional_psychology
        public_relations security_studies sociology us_foreign_policy
    """,
}
_CEVAL = {
    "stem": """
        computer_network operating_system computer_architecture college_programming college_physics
        college_chemistry advanced_mathematics probability_and_statistics discrete_mathematics
        electrical_engineer metrology_engineer high_school_mathematics high_school_physics
        high_school_chemistry high_school_biology middle_school_mathematics middle_school_biology
        middle_school_physics middle_school_chemistry veterinary_medicine
    """,
    "social": """
        college_economics business_administration marxism mao_zedong_thought education_science
        teacher_qualification high_school_politics high_school_geography middle_school_politics
        middle_school_geography
    """,
    "humanities": """
        modern_chinese_history ideological_and_moral_cultivation logic law chinese_language_and_literature
        art_studies professional_tour_guide legal_professional high_school_chinese high_school_history
        middle_school_history
    """,
    "other": """
        civil_servant sports_science plant_protection basic_medicine clinical_medicine urban_and_rural_planner
        accountant fire_engineer environmental_impact_assessment_engineer tax_accountant physician
    """,
    "hard": """
        advanced_mathematics discrete_mathematics probability_and_statistics college_physics
        college_chemistry high_school_mathematics high_school_physics high_school_chemistry
    """,
}
_NAMES = {
    "stem": "STEM",
    "humanities": "Humanities",
    "other": "Other",
    "social": "Social Science",
    "hard": "Hard",
}


def _groups(table: Mapping[str, str]) -> dict[str, tuple[str, frozenset[str]]]:
    return {key: (_NAMES[key], frozenset(names.split())) for key, names in table.items()}


MMLU_GROUPS = _groups(_MMLU)
"""The groups by key: the name, as the original prints it, and the subjects."""
CEVAL_GROUPS = _groups(_CEVAL)
"""Likewise; those of "hard" are in another group too."""
MMLU = tuple(name for names in _MMLU.values() for name in names.split())
CEVAL = tuple(name for key, names in _CEVAL.items() if key != "hard" for name in names.split())
