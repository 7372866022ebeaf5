"""The model behind the stand-in, and one answer that grows by a token a step."""

from __future__ import annotations

import json


class Engine:
    """transformers' causal language model of ``checkpoint``.

    Attributes:
        longest: tokens of prompt and answer together: of the engine's config.json where there is one, else positions.
    """

    def __init__(self, folder):
        import torch
        import transformers

        self.torch = torch
        torch.set_num_threads(1)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder / "checkpoint",
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="eager",
        ).eval()
        config = self.model.config.get_text_config()
        self.vocabulary = int(config.vocab_size)
        self.longest = int(getattr(config, "max_position_embeddings", 0) or 1 << 20)
        if (folder / "config.json").is_file():
            built = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("build_config", {})
            self.longest = int(built.get("max_seq_len") or self.longest)

    def logits(self, ids, cache):
        """The next token's logits [vocab] after ``ids``, and the cache with them."""
        with self.torch.no_grad():
            found = self.model(input_ids=self.torch.tensor([ids]), past_key_values=cache, use_cache=True)
        return found.logits[0, -1].float(), found.past_key_values


class Row:
    """One answer. ``step`` makes a token; ``told`` gives what the next response says."""

    def __init__(self, ids, limit, batch_index, options):
        self.prompt, self.limit, self.batch_index = list(ids), limit, batch_index
        self.streaming, self.without_prompt = options["streaming"], options["exclude_input_in_output"]
        self.log_probabilities = options["return_log_probs"]
        self.end, self.stops, self.bad = options["end_id"], options["stop_words"], options["bad_words"]
        self.options = options
        self.new, self.logs, self.told_before = [], [], 0
        self.cumulative, self.finished, self.cache, self.random = 0.0, limit < 1, None, None

    def step(self, engine):
        logits, self.cache = engine.logits(self.prompt if not self.new else self.new[-1:], self.cache)
        torch = engine.torch
        scores = self._allowed(torch, logits.clone())
        token = self._chosen(torch, scores)
        self.logs.append(float(torch.log_softmax(logits, 0)[token]))
        self.cumulative += self.logs[-1]
        self.new.append(token)
        stopped = any(self.new[-len(word) :] == word for word in self.stops)
        self.finished = token == self.end or stopped or len(self.new) >= self.limit

    def told(self):
        """Token ids and their log probabilities: new ones of a stream, all of a whole answer. The end token is told."""
        if self.streaming:
            start, self.told_before = self.told_before, len(self.new)
            return self.new[start:], self.logs[start:]
        return ([] if self.without_prompt else self.prompt) + self.new, self.logs

    def _allowed(self, torch, scores):
        options, seen = self.options, self.prompt + self.new
        if options["embedding_bias"] is not None:
            scores += torch.tensor(options["embedding_bias"])
        if options["repetition_penalty"] != 1.0:
            used = torch.tensor(sorted(set(seen)))
            scores[used] = torch.where(
                scores[used] > 0,
                scores[used] / options["repetition_penalty"],
                scores[used] * options["repetition_penalty"],
            )
        for token in set(self.new):
            scores[token] -= options["presence_penalty"] + options["frequency_penalty"] * self.new.count(token)
        if self.end is not None and len(self.new) < options["min_tokens"]:
            scores[self.end] = float("-inf")
        for word in self.bad:
            if word[:-1] == seen[len(seen) - len(word) + 1 :]:
                scores[word[-1]] = float("-inf")
        return scores

    def _chosen(self, torch, scores):
        options = self.options
        if options["top_k"] == 1 or (options["top_k"] <= 0 and options["top_p"] <= 0):
            return int(torch.argmax(scores))
        if self.random is None:
            self.random = torch.Generator().manual_seed(options["seed"])
        scores = scores / (options["temperature"] or 1.0)
        if options["top_k"] > 0:
            least = torch.topk(scores, min(options["top_k"], scores.numel())).values[-1]
            scores = scores.masked_fill(scores < least, float("-inf"))
        chances = torch.softmax(scores, 0)
        if 0 < options["top_p"] < 1:
            ordered, places = torch.sort(chances, descending=True)
            cut = torch.cumsum(ordered, 0) - ordered >= options["top_p"]
            chances[places[cut]] = 0
        return int(torch.multinomial(chances, 1, generator=self.random))
