"""Feature extractors, their pretrained weights, and the Multi-AD network."""

from typing import Any

from multiad_med._moved import moved_name
from multiad_med.networks.architectures import ARCHITECTURES, build_extractor
from multiad_med.networks.decoder import DecoderStudent
from multiad_med.networks.dino_features import DinoFeatures
from multiad_med.networks.discriminator import (
    DiscriminatorInput,
    FeatureDiscriminator,
    FeatureFusion,
)
from multiad_med.networks.dual_student import DualStudent
from multiad_med.networks.efficientnet_lite import (
    EFFICIENTNET_LITES,
    EfficientNetLite0Features,
    EfficientNetLiteFeatures,
)
from multiad_med.networks.experts import (
    EXPERTS,
    Expert,
    ExpertKind,
    NearestNormal,
    PositionGaussian,
    Reservoir,
    Statistics,
    TokenGaussian,
    TokenNeighbours,
    WhitenedResidual,
)
from multiad_med.networks.extractor import FeatureExtractor, stage_numbers
from multiad_med.networks.folding import fold_batch_norms
from multiad_med.networks.fusion import (
    FusionMode,
    GaussianSmoothing,
    MultiScaleFusion,
    cosine_distance_maps,
)
from multiad_med.networks.hard_gradient import HardGradientLoss
from multiad_med.networks.hazard import Hazard
from multiad_med.networks.image_student import ImageStudent, NoStudent
from multiad_med.networks.model_file import (
    bundle_of_model,
    load_model,
    maps_studies,
    model_preparation,
    network_of_model,
    open_model,
    read_card,
)
from multiad_med.networks.multiad import MultiAD, Residual, source_weights
from multiad_med.networks.noisy_or import NoisyOrForm, NoisyOrLoss
from multiad_med.networks.presets import (
    PRESETS,
    Preset,
    StudentKind,
    TeacherWeights,
    build_multiad,
)
from multiad_med.networks.resnet import RESNETS, ResNetFeatures
from multiad_med.networks.semantic_student import SemanticStudent
from multiad_med.networks.semantic_token import WithSemanticToken
from multiad_med.networks.timm_backbone import TimmFeatures
from multiad_med.networks.token_decoder import TokenDecoder
from multiad_med.networks.token_levels import TokenLevels
from multiad_med.networks.vgg import VGGS, VGGFeatures
from multiad_med.networks.vision_transformer import (
    VISION_TRANSFORMERS,
    VisionTransformer,
    VisionTransformerSize,
)
from multiad_med.networks.weights import PRETRAINED, WeightsError, load_pretrained, resolve_weights

__all__ = [
    "ARCHITECTURES",
    "EFFICIENTNET_LITES",
    "EXPERTS",
    "PRESETS",
    "PRETRAINED",
    "RESNETS",
    "VGGS",
    "VISION_TRANSFORMERS",
    "DecoderStudent",
    "DinoFeatures",
    "DiscriminatorInput",
    "DualStudent",
    "EfficientNetLite0Features",
    "EfficientNetLiteFeatures",
    "Expert",
    "ExpertKind",
    "FeatureDiscriminator",
    "FeatureExtractor",
    "FeatureFusion",
    "FusionMode",
    "GaussianSmoothing",
    "HardGradientLoss",
    "Hazard",
    "ImageStudent",
    "MultiAD",
    "MultiScaleFusion",
    "NearestNormal",
    "NoStudent",
    "NoisyOrForm",
    "NoisyOrLoss",
    "PositionGaussian",
    "Preset",
    "ResNetFeatures",
    "Reservoir",
    "Residual",
    "SemanticStudent",
    "Statistics",
    "StudentKind",
    "TeacherWeights",
    "TimmFeatures",
    "TokenDecoder",
    "TokenGaussian",
    "TokenLevels",
    "TokenNeighbours",
    "VGGFeatures",
    "VisionTransformer",
    "VisionTransformerSize",
    "WeightsError",
    "WhitenedResidual",
    "WithSemanticToken",
    "build_extractor",
    "build_multiad",
    "bundle_of_model",
    "cosine_distance_maps",
    "fold_batch_norms",
    "load_model",
    "load_pretrained",
    "maps_studies",
    "model_preparation",
    "network_of_model",
    "open_model",
    "read_card",
    "resolve_weights",
    "source_weights",
    "stage_numbers",
]


def __getattr__(name: str) -> Any:  # names that have moved
    return moved_name(__name__, name)
