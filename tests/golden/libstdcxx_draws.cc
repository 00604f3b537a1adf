// Draws of this compiler's C++ standard library, as little-endian 32-bit values on standard output.
//   libstdcxx_draws normals SEED COUNT        floats of a normal distribution
//   libstdcxx_draws sketch SEED COUNT SIZE    pairs of a target below SIZE and a sign
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

int main(int argc, char** argv) {
    const std::string what = argv[1];
    std::mt19937 engine(std::strtoul(argv[2], nullptr, 10));
    const long count = std::strtol(argv[3], nullptr, 10);
    if (what == "normals") {
        std::normal_distribution<float> normal(0.0f, 1.0f);
        for (long i = 0; i < count; ++i) {
            const float value = normal(engine);
            std::fwrite(&value, sizeof value, 1, stdout);
        }
    } else {
        std::uniform_int_distribution<int32_t> target(0, std::strtol(argv[4], nullptr, 10) - 1);
        std::bernoulli_distribution coin(0.5);
        for (long i = 0; i < count; ++i) {
            int32_t pair[2];
            pair[0] = target(engine);
            pair[1] = coin(engine) ? 1 : -1;
            std::fwrite(pair, sizeof pair, 1, stdout);
        }
    }
}
