"""The configuration of a small model, for checkpoints of random weights."""

SMALL = {
    "model_type": "qwen2_audio",
    "architectures": ["Qwen2AudioForConditionalGeneration"],
    "dtype": "bfloat16",
    "audio_config": {
        "d_model": 128,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 256,
        "encoder_layers": 2,
        "max_source_positions": 100,
        "num_mel_bins": 80,
    },
    "text_config": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}
