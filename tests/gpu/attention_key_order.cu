/* The order in which blocks of the five-product backward take items of keys (bwd_sm90_items.cuh), on the host: every tile of
 * keys of every head once, in each chain ascending, few blocks of a chain of short tasks next to each other, and groups of blocks that
 * begin together so that all can. */
#include "kernels/cuda/attention/bwd_sm90_items.cuh"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

using namespace kern_attention;

namespace
{

constexpr int PROCESSORS = 132;

struct wanted_task {
    int heads, section, row_tiles, key_tiles;
};

/* Chains are (task, head). */
using items_t = std::vector<key_place>;

items_t ordered(std::vector<wanted_task> tasks, int group = 4)
{
    const auto p = std::make_unique<bwd_sm90_params>();
    std::stable_sort(tasks.begin(), tasks.end(), [](const wanted_task &a, const wanted_task &b) {
        return a.key_tiles > b.key_tiles;
    });
    p->num_tasks = static_cast<int32_t>(tasks.size());
    p->processors = PROCESSORS;
    p->box_tokens = BWD_ROWS<128> / group;
    p->dims.window = INT32_MAX;
    for (size_t i = 0; i < tasks.size(); i++) {
        p->tasks[i].kv_heads = tasks[i].heads;
        p->tasks[i].key_section = tasks[i].section;
        p->tasks[i].row_tiles = tasks[i].row_tiles;
        p->tasks[i].key_tiles = tasks[i].key_tiles;
    }
    order_key_items(p.get());
    items_t items;
    for (int i = 0; i < num_key_items(*p); i++)
        items.push_back(key_place_of(*p, i));
    return items;
}

int64_t all_items(const std::vector<wanted_task> &tasks)
{
    int64_t items = 0;
    for (const wanted_task &t : tasks)
        items += int64_t{t.heads} * t.key_tiles;
    return items;
}

/* Each chain's tiles are 0, 1, 2, ... and nothing is missing. */
bool complete(const std::vector<wanted_task> &tasks)
{
    std::map<std::pair<int, int>, int> next;
    const items_t items = ordered(tasks);
    for (const key_place &at : items)
        if (at.task < 0 || at.task >= static_cast<int>(tasks.size()) || at.head < 0 ||
            next[{at.task, at.head}]++ != at.tile) {
            printf("task %d, head %d: tile %d is not the next\n", at.task, at.head, at.tile);
            return false;
        }
    if (static_cast<int64_t>(items.size()) != all_items(tasks)) {
        printf("%zu items, wanted %lld\n", items.size(), static_cast<long long>(all_items(tasks)));
        return false;
    }
    return true;
}

/* A block that waits for others to be drawn waits for the end of its group, all of whose blocks wait for the same, and which is
 * within one task; that it comes, attention_key_walk.cu says. `late`: how many wait. */
bool can_begin(const items_t &items, int *late)
{
    const int count = static_cast<int>(items.size());
    *late = 0;
    for (int i = 0; i < count; i++) {
        const int end = items[i].drawn;
        if (end <= i || end > count || items[end - 1].drawn != end ||
            items[end - 1].task != items[i].task) {
            printf("item %d of %d begins when %d are drawn\n", i, count, end);
            return false;
        }
        if (i + 1 < end && (items[i + 1].drawn != end || end - i >= PROCESSORS)) {
            printf("item %d waits for %d, the next one for %d\n", i, end, items[i + 1].drawn);
            return false;
        }
        *late += end > i + 1;
    }
    return true;
}

bool grouped(const char *what, const std::vector<wanted_task> &tasks, int group, int late)
{
    int found;
    if (!can_begin(ordered(tasks, group), &found) || !complete(tasks)) return false;
    if (found != late) printf("%s: %d blocks wait for others, wanted %d\n", what, found, late);
    return found == late;
}

/* The most blocks of a chain among PROCESSORS that follow each other. */
int crowd(const std::vector<wanted_task> &tasks)
{
    std::map<std::pair<int, int>, int> now;
    const items_t items = ordered(tasks);
    int most = 0;
    for (size_t i = 0; i < items.size(); i++) {
        most = std::max(most, ++now[{items[i].task, items[i].head}]);
        if (i + 1 >= PROCESSORS) {
            const key_place &first = items[i + 1 - PROCESSORS];
            now[{first.task, first.head}]--;
        }
    }
    return most;
}

bool random_tasks(unsigned seed)
{
    std::mt19937 random(seed);
    const auto below = [&random](int n) { return static_cast<int>(random() % n); };
    std::vector<wanted_task> tasks;
    for (int i = below(BWD_SM90_TASKS); i >= 0; i--) {
        const int heads = 1 + below(8), section = below(4) == 0 ? 1 + below(heads) : heads;
        tasks.push_back({heads, section, 1 + below(300), 1 + below(i % 8 == 0 ? 200 : 40)});
    }
    int late;
    return complete(tasks) && can_begin(ordered(tasks), &late);
}

bool crowded(const char *what, const std::vector<wanted_task> &tasks, int most)
{
    const int found = crowd(tasks);
    if (found > most)
        printf("%s: %d blocks of a chain next to each other, wanted %d\n", what, found, most);
    return found <= most && complete(tasks);
}

} // namespace

int main()
{
    int faults = 0;
    for (unsigned seed = 1; seed <= 300; seed++)
        faults += !random_tasks(seed);
    /* 128 rows of a group of 4 are 8 tiles: at most so many blocks of a chain can work. */
    faults += !crowded("one head each", std::vector<wanted_task>(64, {1, 1, 8, 200}), 7);
    faults += !crowded("eight heads", std::vector<wanted_task>(24, {8, 8, 8, 200}), 6);
    faults += !crowded("512 rows", std::vector<wanted_task>(16, {8, 8, 32, 132}), 17);
    faults += !crowded("a document", {{8, 8, 1024, 128}}, 17);
    /* In a section's second round, from item 132 on, and not before 16 MB lie between two blocks of a chain; all but the last of a group. */
    faults += !grouped("2 heads of 16k", {{8, 2, 1024, 128}}, 4, 4 * 23 * 3);
    faults += !grouped("2 heads of 16k, 64:8", {{8, 2, 2048, 128}}, 8, 4 * 18 * 5);
    faults += !grouped("4 heads of 8k", {{8, 4, 512, 64}}, 4, 2 * (11 * 7 + 3));
    faults += !grouped("8 heads of 4k", {{8, 8, 256, 32}}, 4, 0);
    printf("attention_key_order: %d faults\n", faults);
    return faults > 0;
}
