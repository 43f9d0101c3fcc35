// What operations refuse, since their kernels would misread it: views with gaps, and arguments that do not agree.
#include "engine/ops.h"
#include "engine/random.h"
#include "tests/support/catch.h"

using namespace nanovlm;

namespace {

const DType f32 = DType::f32;

const Device& cpu() {
  static const Device device = Device::open("cpu");
  return device;
}

Tensor ones(Shape shape) { return from_host(std::vector<float>(shape.numel(), 1), shape, cpu()); }
Tensor numbers(std::vector<int32_t> values) { return row_numbers(values, cpu()); }
// Columns 0 .. C - 1 of a matrix that has more.
Tensor gapped(int64_t R, int64_t C) { return ones({R, 2 * C}).slice(1, 0, C); }

}  // namespace

TEST_CASE("operations whose kernels take no strides refuse views with gaps") {
  const Tensor x = gapped(4, 8), w = ones({8, 8}), c = ones({8}), dense = ones({4, 8});
  const RopeTable table = {ones({4, 4}), ones({4, 4})}, wide = {gapped(4, 4), gapped(4, 4)};
  const Segments one = {numbers({0, 4}), 4, {}, {}};
  const std::function<void()> calls[] = {
      [&] { linear(x, w, {}, f32); },
      [&] { linear(dense, gapped(8, 8), {}, f32); },
      [&] {
        linear_joined(x, {w, w}, f32);
      },
      [&] {
        linear_each(x, {w, w}, f32);
      },
      [&] {
        const NoGrad no_grad(cpu());
        linear_each(dense, {w, gapped(8, 8)}, f32);
      },
      [&] {
        rms_norm({x, {}}, c, 1e-5f, f32);
      },
      [&] {
        rms_norm({dense, x}, c, 1e-5f, f32);
      },
      [&] {
        layer_norm({x, {}}, c, c, 1e-5f, f32);
      },
      [&] {
        add({dense, x});
      },
      [&] {
        attention(x, dense, dense, {1, 1, 8}, one, {}, true);
      },
      [&] {
        attention(dense, dense, x, {1, 1, 8}, one, {}, true);
      },
      [&] {
        attention(dense, dense, dense, {1, 1, 8}, one, wide, true);
      },
      [&] {
        attention(gapped(4, 24), {1, 1, 8}, one, {}, true);
      },
      [&] {
        rope(x, 1, 8, table, numbers({0, 1, 2, 3}));
      },
      [&] {
        write_rows(x, numbers({0, 1, 2, 3}), ones({1, 4, 8}));
      },
      [&] {
        attention_decode(x, ones({4, 2, 8}), ones({4, 2, 8}), {1, 1, 8}, numbers({1, 1, 1, 1}));
      },
      [&] { gelu(x); },
      [&] { mlp(x, w, {}, w, {}, f32); },
      [&] { swiglu(x, dense); },
      [&] { swiglu(dense, x); },
      [&] { swiglu(x); },
      [&] {
        embedding(x, {0, 1});
      },
      [&] {
        gather_rows(x, {0, 1});
      },
      [&] {
        splice(dense, {0, 1, 2, 3}, x, {4, 5, 6, 7});
      },
      [&] {
        patch_embedding(ones({1, 3, 4, 8}).slice(3, 0, 4), ones({5, 3, 4, 4}), ones({5}), ones({1, 1, 5}), f32);
      },
      [&] { pixel_shuffle(x, 1, 2); },
      [&] {
        projector(x, 1, 2, ones({3, 32}), f32);
      },
      [&] {
        linear_cross_entropy(x, w, {0, 1, 2, 3}, f32);
      },
      [&] { cast(x, DType::bf16); },
      [&] { scale(x, 2); },
      [&] { view(x, {32}); },
  };
  for (size_t i = 0; i < std::size(calls); ++i) {
    INFO("call " << i);
    CHECK_THROWS_WITH(calls[i](), contains("contiguous"));
  }
  CHECK_THROWS_WITH(gelu(x), "gelu: x is [4, 8] with strides [16, 1], but must be contiguous");
  CHECK_NOTHROW(gelu(ones({4, 8}).slice(0, 1, 3)));  // whole rows have no gaps
}

TEST_CASE("a product of f32 is not stored as bf16") {
  const Tensor x = ones({40, 8}), w = ones({8, 8});
  CHECK_THROWS_WITH(linear(x, w, {}, f32, DType::bf16),
                    "linear: the result is bf16, but a product of f32 is stored as that or as f32");
  CHECK_NOTHROW(linear(x, w, {}, DType::bf16, f32));

  // Rows that are held in bf16 get their gradient from a loss in f32.
  Random random(1);
  Tensor h = random_normal({40, 8}, 1, random, cpu()).set_requires_grad();
  const std::vector<int32_t> targets(40, 3);
  backward(linear_cross_entropy(cast(h, DType::bf16), w, targets, f32));
  const std::vector<float> found = to_host(h.grad());
  h.set_grad({});
  backward(linear_cross_entropy(cast(cast(h, DType::bf16), f32), w, targets, f32));
  CHECK(found == to_host(h.grad()));
}

TEST_CASE("attention's inputs must agree") {
  const Tensor x = ones({4, 8}), half = cast(x, DType::bf16), floats = ones({4});
  const Heads heads = {1, 1, 8};
  const Segments one = {numbers({0, 4}), 4, {}, {}};
  const RopeTable table = {ones({4, 4}), ones({4, 4})}, shorter = {ones({3, 4}), ones({3, 4})};
  const auto attend = [&](const Segments& segments, const RopeTable& rope) {
    attention(x, x, x, heads, segments, rope, true);
  };
  CHECK_NOTHROW(attend(one, table));
  CHECK_THROWS_WITH(attention(x, half, x, heads, one, {}, true), "attention: k is bf16 and v f32, but q is f32");
  CHECK_THROWS_WITH(attend(one, shorter), "attention: cos is [3, 4], but the longest segment has 4 rows");
  CHECK_THROWS_WITH(attend(one, {ones({4, 4}), ones({4, 3})}), contains("cos is [4, 4] and sin [4, 3]"));
  CHECK_THROWS_WITH(attend(one, {ones({4, 4}), {}}), contains("sin []"));
  CHECK_THROWS_WITH(attend({numbers({0, 4}), 4, {}, floats}, table),
                    "attention: positions is [4] f32, but must be [4] i32");
  CHECK_NOTHROW(attend({numbers({0, 4}), 4, {}, numbers({0, 1, 2, 2})}, shorter));

  const Tensor places = numbers({0, 1, 2, 3});
  CHECK_NOTHROW(rope(x, 1, 8, table, places));
  CHECK_THROWS_WITH(rope(x, 1, 8, {ones({4, 3}), ones({4, 3})}, places), contains("but must be [positions, 8 / 2]"));
  CHECK_THROWS_WITH(rope(x, 1, 8, {}, places), contains("rope: cos is []"));
  CHECK_THROWS_WITH(rope(x, 1, 8, table, numbers({0, 1})), "rope: positions is [2] i32, but must be [4] i32");
  CHECK_THROWS_WITH(rope(x, 1, 8, table, floats), "rope: positions is [4] f32, but must be [4] i32");

  const Tensor cache = ones({4, 2, 8}), lengths = numbers({1, 1, 2, 1});
  CHECK_NOTHROW(attention_decode(x, cache, cache, heads, lengths));
  CHECK_THROWS_WITH(attention_decode(x, cache, cast(cache, DType::bf16), heads, lengths),
                    "attention_decode: k is f32 and v bf16, but q is f32");
  CHECK_THROWS_WITH(attention_decode(x, cache, cache, heads, numbers({1})),
                    "attention_decode: lengths is [1] i32, but must be [4] i32");
  CHECK_THROWS_WITH(attention_decode(x, cache, cache, {2, 0, 4}, lengths), contains("2 query heads for 0"));
}

TEST_CASE("row numbers must fit what they move") {
  const Tensor x = ones({2, 8}), cache = ones({1, 4, 8});
  CHECK_NOTHROW(write_rows(x, numbers({3, 1}), cache));
  CHECK_THROWS_WITH(write_rows(x, numbers({3}), cache), "write_rows: 1 row numbers for x of [2, 8]");
  CHECK_THROWS_WITH(write_rows(x, ones({2}), cache), contains("write_rows: row numbers are [2] f32"));
  CHECK_THROWS_WITH(splice(x, {0, 1}, x, {1, 2}), "splice: row 1 is named twice, but rows must be distinct");
  CHECK_NOTHROW(splice(x, {0, 3}, x, {1, 2}));

  Tensor learns = ones({2, 8});
  learns.set_requires_grad();
  CHECK_NOTHROW(gather_rows(x, {1, 1}));
  CHECK_THROWS_WITH(gather_rows(learns, {1, 1}), contains("gather_rows: row 1 is named twice"));
  const NoGrad no_grad(cpu());
  CHECK_NOTHROW(gather_rows(learns, {1, 1}));
}

TEST_CASE("patches without pixels or channels are refused") {
  const auto embed = [](Shape weight) {
    patch_embedding(ones({1, 3, 4, 4}), ones(weight), ones({weight[0]}), ones({1, 1, weight[0]}), f32);
  };
  CHECK_THROWS_WITH(embed({5, 3, 0, 0}), contains("weight is [5, 3, 0, 0]"));
  CHECK_THROWS_WITH(embed({0, 3, 4, 4}), contains("weight is [0, 3, 4, 4]"));
}

TEST_CASE("a dtype that kernels do not know is refused with operation, operand, shape and what is supported") {
  const Tensor x = numbers({1, 2, 3, 4}), rows = view(x, {2, 2});
  CHECK_THROWS_WITH(gelu(x), "gelu: x is [4] i32, but must be f32 or bf16");
  CHECK_THROWS_WITH(scale(x, 2.0f), contains("scale: x is [4] i32"));
  CHECK_THROWS_WITH(cast(x, f32), contains("cast: x is [4] i32"));
  CHECK_THROWS_WITH(cast(ones({3}), DType::i32), "cast: the result of x [3] is to be i32, but must be f32 or bf16");
  CHECK_THROWS_WITH(rms_norm({ones({2, 2}), {}}, ones({2}), 1e-5f, DType::i32),
                    contains("rms_norm: the result of x [2, 2]"));
  CHECK_THROWS_WITH(swiglu(rows, rows), contains("swiglu: gate is [2, 2] i32"));
  CHECK_THROWS_WITH(attention(rows, rows, rows, {1, 1, 2}, {numbers({0, 2}), 2, {}, {}}, {}, true),
                    contains("attention: q is [2, 2] i32"));
}
