"""The words of classes, and the sentences in which they stand."""

from __future__ import annotations

from collections.abc import Sequence

from embedpipe._utils.option_names import option
from embedpipe._utils.options import split_names
from embedpipe.errors import UsageError
from embedpipe.sources.options import Modality

#: Sentences with the place of a class. Of photos: the seven that CLIP's authors found best together for ImageNet
#: (github.com/openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb), and the plain one of their paper. Of
#: texts: the name itself, and the hypothesis of transformers' zero-shot pipeline.
TEMPLATES: dict[Modality, tuple[str, ...]] = {
    "image": (
        "a photo of a {}.",
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "text": ("{}", "This example is {}."),
}
PLACE = "{}"
#: Help of the options of `fit` and `evaluate`.
CLASSES_HELP = (
    "Classes of the heads zero-shot and text-prior, separated by commas: names, or LABEL=WORDS such as "
    "spam=an advertisement. By default the labels of the store."
)
TEMPLATES_HELP = (
    "Sentences for these heads with {} for the class, such as 'an X-ray of a {}.'; may be repeated. By default those "
    "of CLIP for photos, and the name itself for texts."
)


def class_words(given: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Return the words of each class.

    Parameters
    ----------
    given : sequence of str
        ``LABEL``, or ``LABEL=WORDS``, each also several, separated by commas; empty: the labels.
    labels : sequence of str
        The labels of the rows. All must be among the classes.

    Raises
    ------
    UsageError
        If a class has no words or is there twice, a label is no class, or there is one class only.
    """
    words: dict[str, str] = {}
    for part in split_names("classes", given) or labels:
        label, named, phrase = part.partition("=") if given else (part, "", "")
        label = label.strip()
        phrase = phrase.strip() if named else " ".join(label.replace("_", " ").split())
        if not phrase or label in words:
            raise UsageError(f"{option('classes')} must have words for each class once, got {part.strip()!r}")
        words[label] = phrase
    if unknown := sorted({*labels} - words.keys()):
        raise UsageError(f"{option('classes')} must have all labels of the store, and lacks {', '.join(unknown)}")
    if len(words) < 2:
        raise UsageError(f"a classifier needs two classes: name them ({option('classes', 'cat,dog')})")
    return words


def check_templates(templates: Sequence[str]) -> None:
    """Raise UsageError unless each template has one place for the class."""
    for template in templates:
        if template.count(PLACE) != 1:
            raise UsageError(f"{option('templates')} must have {{}} once, for the class, got {template!r}")


def prompts_of(words: Sequence[str], templates: Sequence[str], modality: Modality) -> list[list[str]]:
    """Return the sentences of each class."""
    used = templates or TEMPLATES[modality]
    return [[template.replace(PLACE, phrase) for template in used] for phrase in words]
