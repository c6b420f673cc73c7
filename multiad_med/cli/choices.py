"""What can be chosen on the command line: the words of the library's own enums, quick to import."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "Architecture",
    "Bits",
    "DicomResult",
    "Domain",
    "Layout",
    "Method",
    "Part",
    "Preset",
    "Runtime",
    "Segments",
    "ServedResult",
    "Window",
]


class Domain(StrEnum):
    """What a model is for; each has a bundle."""

    BRAIN_MRI = "brain_mri"
    LIVER_CT = "liver_ct"
    RETINA_OCT = "retina_oct"
    INDUSTRIAL = "industrial"
    GENERALIST = "generalist"


class Runtime(StrEnum):
    """See :class:`multiad_med.inference.Runtime`."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


class DicomResult(StrEnum):
    """See :class:`multiad_med.dicom.write.results.DicomKind`."""

    SEG = "seg"
    PARAMETRIC_MAP = "pm"
    OVERLAY = "overlay"
    REPORT = "sr"


class ServedResult(StrEnum):
    """DICOM results of a service, or none."""

    SEG = "seg"
    PARAMETRIC_MAP = "pm"
    OVERLAY = "overlay"
    REPORT = "sr"
    NONE = "none"


class Segments(StrEnum):
    """See :class:`multiad_med.dicom.write.results.Segments`."""

    SEVERITY_LEVELS = "levels"
    BINARY = "binary"


class Part(StrEnum):
    """See :class:`multiad_med.evaluation.parts.Part`."""

    ALL = "all"
    DEVELOPMENT = "development"
    REPORT = "report"


class Window(StrEnum):
    """See :class:`multiad_med.transforms.Window`."""

    ABDOMEN = "abdomen"
    LIVER = "liver"
    LUNG = "lung"
    BRAIN = "brain"
    BONE = "bone"


class Layout(StrEnum):
    """See :class:`multiad_med.preparation.ExportLayout`."""

    MVTEC = "mvtec"
    BMAD = "bmad"


class Bits(StrEnum):
    """Number of bits of a grey value in a PNG."""

    EIGHT = "8"
    SIXTEEN = "16"


class Architecture(StrEnum):
    """Teachers with pretrained weights; see :data:`multiad_med.networks.weights.PRETRAINED`."""

    EFFICIENTNET_LITE0 = "efficientnet_lite0"
    EFFICIENTNET_LITE1 = "efficientnet_lite1"
    EFFICIENTNET_LITE2 = "efficientnet_lite2"
    RESNET18 = "resnet18"
    RESNET34 = "resnet34"
    RESNET50 = "resnet50"
    WIDE_RESNET50_2 = "wide_resnet50_2"
    VGG16 = "vgg16"
    VGG19 = "vgg19"
    DINOV2_VITS14 = "dinov2_vits14"
    DINOV2_VITS14_REG = "dinov2_vits14_reg"
    DINOV2_VITB14 = "dinov2_vitb14"
    DINOV2_VITB14_REG = "dinov2_vitb14_reg"
    DINOV2_VITL14 = "dinov2_vitl14"


class Preset(StrEnum):
    """See :data:`multiad_med.networks.PRESETS`."""

    WIDE_RESNET50_2 = "wide_resnet50_2"
    LITERAL = "literal"
    PLAIN = "plain"
    RESNET50 = "resnet50"
    RESNET34 = "resnet34"
    RESNET18 = "resnet18"
    EFFICIENTNET_LITE0 = "efficientnet_lite0"
    EFFICIENTNET_LITE0_DECODER = "efficientnet_lite0_decoder"
    EFFICIENTNET_LITE1 = "efficientnet_lite1"
    EFFICIENTNET_LITE1_DECODER = "efficientnet_lite1_decoder"
    EFFICIENTNET_LITE2 = "efficientnet_lite2"
    EFFICIENTNET_LITE2_DECODER = "efficientnet_lite2_decoder"
    GAUSSIAN = "gaussian"
    NEIGHBOURS = "neighbours"
    VGG16 = "vgg16"
    VGG19 = "vgg19"
    DINOMALY = "dinomaly"
    DUAL_LITE2 = "dual_lite2"
    DUAL_DINOV2_S = "dual_dinov2_s"
    DUAL_DINOV2_B = "dual_dinov2_b"


class Method(StrEnum):
    """See :data:`multiad_med.benchmark.compare.METHODS`."""

    MULTIAD = "multiad"
    MULTIAD_PAPER = "multiad_paper"
    PADIM = "padim"
    PATCHCORE = "patchcore"
    PATCHCORE_1 = "patchcore_1"
    STFPM = "stfpm"
    REVERSE_DISTILLATION = "reverse_distillation"
    EFFICIENT_AD = "efficient_ad"
    SUPERSIMPLENET = "supersimplenet"
    DINOMALY = "dinomaly"
    MKD = "mkd"
    SIMPLENET = "simplenet"
