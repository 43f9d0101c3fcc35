"""nanoVLM v1's model put together from transformers' classes, for timing beside ours.

SigLIP's vision tower without its pooling head, pixel shuffle, a linear projector, and Llama: the same shapes, parameters
and arithmetic as nanoVLM's own PyTorch modules, with weights drawn at random.
"""

import resource
import statistics
import time

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

IGNORED_LABEL = -100
PARAMETERS_222M = 222_081_600


def llama_config(config):
    return LlamaConfig(
        vocab_size=config["lm_vocab_size"],
        hidden_size=config["lm_hidden_dim"],
        intermediate_size=config["lm_inter_dim"],
        num_hidden_layers=config["lm_n_blocks"],
        num_attention_heads=config["lm_n_heads"],
        num_key_value_heads=config["lm_n_kv_heads"],
        max_position_embeddings=config["lm_max_position_embeddings"],
        rms_norm_eps=config["lm_rms_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": float(config["lm_re_base"])},
        rope_theta=float(config["lm_re_base"]),
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )


class Twin(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        vision = SiglipVisionConfig(
            hidden_size=config["vit_hidden_dim"],
            intermediate_size=config["vit_inter_dim"],
            num_hidden_layers=config["vit_n_blocks"],
            num_attention_heads=config["vit_n_heads"],
            image_size=config["vit_img_size"],
            patch_size=config["vit_patch_size"],
            layer_norm_eps=config["vit_ln_eps"],
            hidden_act="gelu_pytorch_tanh",
            vision_use_head=False,
            attn_implementation="sdpa",
        )
        self.factor = config["mp_pixel_shuffle_factor"]
        self.vision = SiglipVisionModel(vision)
        self.projector = torch.nn.Linear(
            config["vit_hidden_dim"] * self.factor**2, config["lm_hidden_dim"], bias=False
        )
        self.decoder = LlamaForCausalLM(llama_config(config))

    def parameter_count(self):
        return sum(x.numel() for x in self.parameters())

    def pixel_shuffle(self, x):
        B, P, C = x.shape
        side, f = int(P**0.5), self.factor
        x = x.view(B, side // f, f, side // f, f, C).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(B, P // f**2, C * f**2)

    def forward(self, images, input_ids, attention_mask, labels):
        """nanoVLM v1's loss: the head over every position, cross entropy over the text's labels that count."""
        picture = self.projector(self.pixel_shuffle(self.vision(images).last_hidden_state))
        text = self.decoder.get_input_embeddings()(input_ids)
        seen = torch.ones(picture.shape[:2], dtype=attention_mask.dtype)
        logits = self.decoder(
            inputs_embeds=torch.cat([picture, text], dim=1),
            attention_mask=torch.cat([seen, attention_mask], dim=1),
            use_cache=False,
        ).logits[:, picture.shape[1] :]
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED_LABEL)


def report(seconds):
    """Median and spread of timed runs."""
    ordered = sorted(seconds)
    return {
        "median_s": statistics.median(ordered),
        "min_s": ordered[0],
        "max_s": ordered[-1],
        "runs": len(ordered),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def timed(function, runs, warmup):
    seconds = []
    for i in range(warmup + runs):
        start = time.perf_counter()
        function()
        if i >= warmup:
            seconds.append(time.perf_counter() - start)
    return seconds
