// Draws of this compiler's C++ standard library, as little-endian 32-bit values on standard output.
//   libstdcxx_draws normals SEED COUNT        floats of a normal distribution
//   libstdcxx_draws sketch SEED COUNT SIZE    pairs of a target below SIZE and a sign
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

int main(int argc, char** argv) {
    std::mt19937 engine(std::strtoul(argv[2], nullptr, 10));
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::uniform_int_distribution<int32_t> target(0, argc > 4 ? std::strtol(argv[4], nullptr, 10) - 1 : 0);
    std::bernoulli_distribution coin(0.5);
    for (long count = std::strtol(argv[3], nullptr, 10); count > 0; --count) {
        if (argc > 4) {
            const int32_t pair[2] = {target(engine), coin(engine) ? 1 : -1};  // braces draw in this order
            std::fwrite(pair, sizeof pair, 1, stdout);
        } else {
            const float value = normal(engine);
            std::fwrite(&value, sizeof value, 1, stdout);
        }
    }
}
