"""Model families of transformers and adapters of PEFT, tiny and random, with what their bare parameters are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

_LM: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VIT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_AUDIO: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "num_hidden_layers": 1,
    "conv_dim": (8, 8),
    "conv_stride": (2, 2),
    "conv_kernel": (3, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
_SSM: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 40, "state_size": 4}
_MOE: dict[str, Any] = {
    **_LM,
    "num_experts": 2,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 8,
    "n_routed_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_LATENT = {"kv_lora_rank": 4, "q_lora_rank": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "qk_nope_head_dim": 4}
_LINEAR_ATTENTION = {
    "shared_expert_intermediate_size": 8,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention"],
}
_MAMBA_LAYERS = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4}
_FOUR_STAGES = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
_VITS = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 16,
    "flow_size": 8,
    "spectrogram_bins": 9,
    "upsample_initial_channel": 16,
    "upsample_rates": [2],
    "upsample_kernel_sizes": [4],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "prior_encoder_num_flows": 1,
    "prior_encoder_num_wavenet_layers": 1,
    "posterior_encoder_num_wavenet_layers": 1,
    "duration_predictor_num_flows": 1,
}
_PERCEIVER = {
    "num_latents": 4,
    "d_latents": 16,
    "d_model": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
    "image_size": 8,
}


@dataclass(frozen=True)
class Family:
    """A tiny model and the roles of parameters that no layer of torch owns, by their last names."""

    name: str
    suffix: str
    options: dict[str, Any]
    bare: str
    """``role: attribute attribute, role: attribute``."""

    def build(self) -> nn.Module:
        """A random model of this family."""
        import transformers

        config = getattr(transformers, f"{self.name}Config")(**self.options)
        model: nn.Module = getattr(transformers, self.name + self.suffix)(config)
        return model

    def roles(self) -> dict[str, str]:
        """Last part of a parameter's name to its role."""
        pairs = (part.split(":") for part in self.bare.split(",") if part)
        return {attribute: role.strip() for role, attributes in pairs for attribute in attributes.split()}


_LM_HEAD, _CLASSIFIER = "ForCausalLM", "ForImageClassification"
_EXPERTS = "matrix: gate_up_proj down_proj"
FAMILIES = tuple(
    Family(*row)
    for row in (
        ("Mixtral", _LM_HEAD, _MOE, _EXPERTS),
        ("Qwen3Moe", _LM_HEAD, _MOE, _EXPERTS),
        ("DeepseekV3", _LM_HEAD, {**_MOE, **_LATENT}, _EXPERTS),
        ("GptOss", _LM_HEAD, _MOE, _EXPERTS + ", bias: gate_up_proj_bias down_proj_bias sinks"),
        ("Qwen3Next", _LM_HEAD, {**_MOE, **_LINEAR_ATTENTION}, _EXPERTS + ", scalar: A_log, bias: dt_bias"),
        ("JetMoe", _LM_HEAD, {**_MOE, "kv_channels": 8}, ""),
        ("Mamba", _LM_HEAD, _SSM, "scalar: A_log D"),
        (
            "Mamba2",
            _LM_HEAD,
            {**_SSM, "num_heads": 4, "head_dim": 8, "expand": 2, "n_groups": 1},
            "scalar: A_log D, bias: dt_bias",
        ),
        (
            "Rwkv",
            _LM_HEAD,
            {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 40},
            "scalar: time_decay time_first time_mix_key time_mix_value time_mix_receptance",
        ),
        ("ConvNext", _CLASSIFIER, _FOUR_STAGES, "scalar: layer_scale_parameter"),
        ("ConvNextV2", _CLASSIFIER, _FOUR_STAGES, ""),
        (
            "Beit",
            _CLASSIFIER,
            {**_VIT, "use_relative_position_bias": True, "use_mask_token": True},
            "scalar: lambda_1 lambda_2, embedding: cls_token mask_token relative_position_bias_table",
        ),
        ("Wav2Vec2", "ForCTC", _AUDIO, "embedding: masked_spec_embed, scalar: original0, matrix: original1"),
        ("Hubert", "ForCTC", _AUDIO, "embedding: masked_spec_embed, scalar: original0, matrix: original1"),
        ("Perceiver", "ForImageClassificationLearned", _PERCEIVER, "embedding: latents position_embeddings"),
        ("Vits", "Model", _VITS, "embedding: emb_rel_k emb_rel_v, bias: translate, scalar: log_scale"),
        # beyond those that somebody reported
        ("Llama4Text", "Model", _MOE, _EXPERTS),
        ("Olmoe", _LM_HEAD, _MOE, _EXPERTS),
        ("GraniteMoe", _LM_HEAD, _MOE, _EXPERTS),
        ("Glm4Moe", _LM_HEAD, _MOE, _EXPERTS),
        ("FalconMamba", _LM_HEAD, _SSM, "scalar: A_log D"),
        (
            "Jamba",
            _LM_HEAD,
            {**_MOE, "mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
            _EXPERTS + ", scalar: A_log D",
        ),
        ("Bamba", _LM_HEAD, {**_LM, **_MAMBA_LAYERS, "attn_layer_indices": [1]}, "scalar: A_log D, bias: dt_bias"),
        ("FalconH1", _LM_HEAD, {**_LM, **_MAMBA_LAYERS, "mamba_d_ssm": 32}, "scalar: A_log D, bias: dt_bias"),
        (
            "RecurrentGemma",
            _LM_HEAD,
            {**_LM, "lru_width": 16},
            "scalar: recurrent_param, matrix: input_gate_weight recurrent_gate_weight, "
            "bias: input_gate_bias recurrent_gate_bias",
        ),
        ("DiffLlama", _LM_HEAD, _LM, "scalar: lambda_q1 lambda_k1 lambda_q2 lambda_k2"),
        ("Doge", _LM_HEAD, _LM, "scalar: A input_residual post_attention_residual"),
        (
            "xLSTM",
            _LM_HEAD,
            {
                **{key: _SSM[key] for key in ("hidden_size", "num_hidden_layers", "vocab_size")},
                "num_heads": 2,
                "chunkwise_kernel": "chunkwise--native_autograd",
                "sequence_kernel": "native_sequence__native",
                "step_kernel": "native",
            },
            "",
        ),
        ("ModernBert", "ForMaskedLM", _LM, ""),
        ("Cohere", _LM_HEAD, {**_LM, "use_qk_norm": True}, ""),
        ("Dinov2", "Model", _VIT, "scalar: lambda1, embedding: cls_token mask_token position_embeddings"),
        ("DINOv3ViT", "Model", {**_VIT, "num_register_tokens": 2}, "scalar: lambda1, embedding: register_tokens"),
        (
            "Swinv2",
            _CLASSIFIER,
            {"embed_dim": 8, "depths": [1], "num_heads": [2], "image_size": 16, "patch_size": 4, "window_size": 2},
            "scalar: logit_scale",
        ),
        (
            "SwiftFormer",
            _CLASSIFIER,
            {"embed_dims": [8, 8, 8, 8], "depths": [2, 1, 1, 1]},
            "scalar: layer_scale layer_scale_1 layer_scale_2",
        ),
        ("PoolFormer", _CLASSIFIER, _FOUR_STAGES, "scalar: layer_scale_1 layer_scale_2"),
        (
            "Levit",
            _CLASSIFIER,
            {"hidden_sizes": [8] * 3, "num_attention_heads": [1] * 3, "depths": [1] * 3, "key_dim": [4] * 3},
            "bias: attention_biases",
        ),
        ("SiglipVision", "Model", _VIT, "embedding: probe, matrix: in_proj_weight, bias: in_proj_bias"),
        (
            "Funnel",
            "Model",
            {"vocab_size": 40, "block_sizes": [1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 16},
            "matrix: r_kernel, bias: r_w_bias r_r_bias r_s_bias, embedding: seg_embed",
        ),
        ("Deberta", "Model", {**_LM, "max_position_embeddings": 16}, "bias: q_bias v_bias"),
        ("WavLM", "Model", _AUDIO, "scalar: gru_rel_pos_const"),
        ("SEW", "Model", {**_AUDIO, "squeeze_factor": 2}, "embedding: masked_spec_embed"),
        ("CLIP", "Model", {"text_config": _LM, "vision_config": _VIT, "projection_dim": 8}, "scalar: logit_scale"),
        ("Timesformer", "Model", {**_VIT, "num_frames": 2}, "embedding: time_embeddings"),
        (
            "ViTMAE",
            "ForPreTraining",
            {**_VIT, "decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2},
            "embedding: cls_token mask_token position_embeddings decoder_pos_embed",
        ),
    )
)


def small_llama() -> nn.Module:
    """A llama of one layer, to be adapted."""
    import transformers

    model: nn.Module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**_LM, "num_hidden_layers": 1}))
    return model


@dataclass(frozen=True)
class Adapter:
    """A kind of PEFT adapter and the roles of what it makes trainable, by a part of the parameters' names."""

    name: str
    config: Callable[[Any], Any]
    """From the module ``peft`` to a configuration."""
    trained: dict[str, str]

    def build(self) -> nn.Module:
        """A random model with the adapter."""
        import peft

        with warnings.catch_warnings():  # of a CUDA kernel, of an adapter that is experimental
            warnings.simplefilter("ignore")
            model: nn.Module = peft.get_peft_model(small_llama(), self.config(peft))
        return model


_ON = {"target_modules": ["q_proj", "v_proj"]}
_VIRTUAL = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
ADAPTERS = tuple(
    Adapter(name, config, trained)
    for name, config, trained in (
        ("LoRA", lambda p: p.LoraConfig(r=2, **_ON), {"lora_A": "matrix", "lora_B": "matrix"}),
        (
            "DoRA",
            lambda p: p.LoraConfig(r=2, use_dora=True, **_ON),
            {"lora_A": "matrix", "lora_B": "matrix", "lora_magnitude_vector": "scalar"},
        ),
        (
            "LoRA of an embedding, head saved",
            lambda p: p.LoraConfig(r=2, target_modules=["embed_tokens"], modules_to_save=["lm_head"]),
            {"lora_embedding_A": "embedding", "lora_embedding_B": "embedding", "modules_to_save": "head"},
        ),
        (
            "AdaLoRA",
            lambda p: p.AdaLoraConfig(init_r=4, target_r=2, total_step=10, **_ON),
            {"lora_A": "matrix", "lora_B": "matrix", "lora_E": "scalar"},
        ),
        (
            "IA3",
            lambda p: p.IA3Config(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"]),
            {"ia3_l": "scalar"},
        ),
        (
            "LoHa",
            lambda p: p.LoHaConfig(r=2, **_ON),
            {"hada_w1_a": "matrix", "hada_w1_b": "matrix", "hada_w2_a": "matrix", "hada_w2_b": "matrix"},
        ),
        ("LoKr", lambda p: p.LoKrConfig(r=2, **_ON), {"lokr_w1": "matrix", "lokr_w2": "matrix"}),
        ("OFT", lambda p: p.OFTConfig(oft_block_size=4, **_ON), {"oft_R": "matrix"}),
        ("BOFT", lambda p: p.BOFTConfig(boft_block_size=4, **_ON), {"boft_R": "matrix", "boft_s": "scalar"}),
        (
            "VeRA",
            lambda p: p.VeraConfig(r=4, **_ON),
            {"vera_lambda_b": "scalar", "vera_lambda_d": "scalar"},
        ),
        (
            "VB-LoRA",
            lambda p: p.VBLoRAConfig(r=2, num_vectors=4, vector_length=4, topk=2, **_ON),
            {"vblora_logits": "scalar", "vblora_vector_bank": "matrix"},
        ),
        ("FourierFT", lambda p: p.FourierFTConfig(n_frequency=10, **_ON), {"fourierft_spectrum": "scalar"}),
        ("HRA", lambda p: p.HRAConfig(r=2, **_ON), {"hra_u": "matrix"}),
        ("LayerNorm tuning", lambda p: p.LNTuningConfig(target_modules=["input_layernorm"]), {"ln_tuning": "norm"}),
        ("prompt tuning", lambda p: p.PromptTuningConfig(**_VIRTUAL), {"prompt_encoder": "embedding"}),
        ("prefix tuning", lambda p: p.PrefixTuningConfig(**_VIRTUAL), {"prompt_encoder": "embedding"}),
        (
            "multitask prompt tuning",
            lambda p: p.MultitaskPromptTuningConfig(num_tasks=2, **_VIRTUAL),
            {"prefix_task": "embedding", "prompt_encoder": "embedding"},
        ),
        (
            "LLaMA-Adapter",
            lambda p: p.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"),
            {"adaption_prompt": "embedding", "adaption_gate": "scalar"},
        ),
        (
            "trainable tokens",
            lambda p: p.TrainableTokensConfig(token_indices=[1, 2], target_modules=["embed_tokens"]),
            {"trainable_tokens": "embedding"},
        ),
    )
)
