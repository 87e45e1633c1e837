"""Names used all over the plugin."""

DISTRIBUTION = 'scipion-em-cryogem'
URL = 'https://arxiv.org/abs/2312.02235'
CRYOGEM_ENV_ACTIVATION = 'CRYOGEM_ENV_ACTIVATION'
CRYOGEM_TORCH = 'CRYOGEM_TORCH'
CRYOGEM_CUDA_LIB = 'CRYOGEM_CUDA_LIB'

TRAINED_MODEL = 'trained model'             # choice of the generate form beside the noise models of the engine
