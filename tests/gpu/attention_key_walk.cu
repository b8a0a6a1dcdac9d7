/* That all blocks of a launch of the five-product backward end, on the host: blocks wait for blocks before them in their chain and, in the
 * second round, for the rest of their group (bwd_sm90_items.cuh), which begins only when processors are free. A walk of processors over
 * whole launches, described as the op describes them; here nobody gives up waiting for a group (GROUP_POLLS), since no wait should need it. */
#include "kernels/cuda/attention/bwd_sm90.cu" /* describe_tasks, which nothing else may call */

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

using namespace kern_attention;

namespace
{

constexpr int PROCESSORS = 132;

/* Chains are (task, head). */
using items_t = std::vector<key_place>;

struct launch_t {
    items_t items;
    int needed; /* blocks of the largest group, from one that waits on */
};

int needed_by(const items_t &items)
{
    int most = 1;
    for (size_t i = 0; i < items.size(); i++)
        most = std::max(most, items[i].drawn - static_cast<int>(i));
    return most;
}

/* The items of a launch as launch_bwd_sm90 makes it on a device of so many processors. */
template <int D>
launch_t launched(const std::vector<kern_attention_task_t> &tasks, int group, int window,
                  int processors)
{
    const encode_map_t no_map = [](auto...) { return CUDA_SUCCESS; };
    const auto args = std::make_unique<bwd_params>();
    const auto p = std::make_unique<bwd_sm90_params>();
    int order[MAX_TASKS];
    launch_t launch;
    args->list.num_tasks = static_cast<int32_t>(tasks.size());
    std::copy(tasks.begin(), tasks.end(), args->list.tasks);
    order_tasks(args->list, order, keys_of);
    args->dims.group = divider::of(group);
    args->dims.window = window;
    args->workspace = p.get(); /* there is one */
    if (!describe_tasks<D>(p.get(), no_map, *args, {order, args->list.num_tasks}, processors))
        abort();
    for (int i = 0; i < num_key_items(*p); i++)
        launch.items.push_back(key_place_of(*p, i));
    launch.needed = needed_by(launch.items);
    return launch;
}

/* How many of a launch's blocks end on so many processors. A free processor draws the next item; a block ends when as many have been
 * drawn as it waits for and the block before it in its chain has ended (it needs less: that it is ahead in their common rows). Neither
 * takes away what another one can do, so that who waits for ever in one order of events does so in all of them. */
int ended(const items_t &items, int processors)
{
    std::map<std::pair<int, int>, int> ends; /* of each chain */
    std::vector<int> running;
    int drawn = 0, count = static_cast<int>(items.size());
    for (size_t before = 1; before != 0;) {
        while (drawn < count && running.size() < static_cast<size_t>(processors))
            running.push_back(drawn++);
        before = running.size();
        running.erase(std::remove_if(running.begin(), running.end(),
                                     [&](int item) {
                                         const key_place &at = items[item];
                                         int &tile = ends[{at.task, at.head}];
                                         if (drawn < at.drawn || tile != at.tile) return false;
                                         tile++;
                                         return true;
                                     }),
                      running.end());
        if (running.size() == before) break;
    }
    return drawn - static_cast<int>(running.size());
}

bool ends(const items_t &items, int processors)
{
    return ended(items, processors) == static_cast<int>(items.size());
}

/* Documents, shards of documents, windows; a task's rows begin at a multiple of 128, or with its keys. */
launch_t random_launch(std::mt19937 &random, int processors)
{
    static const int groups[] = {1, 2, 4, 5, 7, 8, 16};
    const auto below = [&random](int n) { return static_cast<int>(random() % n); };
    const int window = below(3) == 0 ? 1 + below(20000) : NO_WINDOW, group = groups[below(7)];
    std::vector<kern_attention_task_t> tasks;
    for (int i = below(below(2) ? 3 : BWD_SM90_TASKS); i >= 0; i--) {
        kern_attention_task_t t = {};
        t.q_rows = 1 + below(i == 0 ? 20000 : 2000);
        t.q_row0 = below(3) == 0 ? 128 * below(100) : 0;
        t.kv_row0 = window > t.q_row0 ? 0 : (t.q_row0 - window + 1) / 128 * 128;
        t.kv_heads = 1 + below(8);
        t.q_head = t.d_o_row = t.d_o_head = t.kv_head = 1;
        tasks.push_back(t);
    }
    return below(2) ? launched<64>(tasks, group, window, processors)
                    : launched<128>(tasks, group, window, processors);
}

/* As if groups reached `more` items further; within the launch, or not. */
items_t with_longer_groups(items_t items, int more, bool within)
{
    const int count = static_cast<int>(items.size());
    for (int i = 0, end; i < count; i = end) {
        end = items[i].drawn;
        for (int j = i; j < end && end > i + 1; j++)
            items[j].drawn = within ? std::min(end + more, count) : end + more;
    }
    return items;
}

/* As if all that wait in a section of so many items were one group. */
items_t with_one_group(items_t items, int section)
{
    const int count = static_cast<int>(items.size());
    for (int i = 0; i < count; i++)
        if (items[i].drawn > i + 1) items[i].drawn = (i / section + 1) * section;
    return items;
}

/* Higher keys first. */
items_t with_descending_keys(items_t items)
{
    std::map<std::pair<int, int>, int> tiles;
    for (const key_place &at : items)
        tiles[{at.task, at.head}]++;
    for (key_place &at : items)
        at.tile = tiles[{at.task, at.head}] - 1 - at.tile;
    return items;
}

/* The most blocks that a group can have on a device of so many processors, of all documents, heads and query heads. */
int largest_group(int processors)
{
    int most = 1;
    for (int heads = 1; heads <= 64; heads++)
        for (int tiles = 1; tiles <= 520; tiles++)
            for (const int apart : {2, 16}) {
                bwd_sm90_task t = {};
                t.kv_heads = heads;
                t.key_tiles = tiles;
                const int blocks = late_blocks(t, apart);
                if (blocks > 1) most = std::max(most, blocks * key_section(t, 0, true, processors));
            }
    return most;
}

int hangs_wrongly(const launch_t &launch, int processors, int some)
{
    const bool enough = some >= launch.needed;
    if (ends(launch.items, some) == enough) return 0;
    printf("a launch for %d processors, of groups of up to %d, %s on %d\n", processors,
           launch.needed, enough ? "hangs" : "ends", some);
    return 1;
}

/* Launches on devices of 1 to 200 processors end on as many processors as their largest group has blocks, and on any larger number;
 * on one fewer they hang. From 3 on a device has as many; 132 have ten times as many. */
int walk_launches()
{
    std::mt19937 random(5);
    int faults = 0, waiting = 0;
    for (int processors = 1; processors <= 200; processors++) {
        const int most = largest_group(processors);
        if ((processors >= 3 && most > processors) || (processors == PROCESSORS && most != 14)) {
            printf("%d processors: a group of %d blocks\n", processors, most);
            faults++;
        }
        for (int i = 0; i < 4; i++) {
            const launch_t launch = random_launch(random, processors);
            if (launch.needed > most) {
                printf("%d processors: a launch's group of %d blocks, at most %d were expected\n",
                       processors, launch.needed, most);
                faults++;
            }
            for (const int some : {launch.needed, launch.needed + 1, processors, 2 * processors})
                faults += hangs_wrongly(launch, processors, some);
            if (launch.needed == 1) continue;
            faults += hangs_wrongly(launch, processors, launch.needed - 1);
            waiting++;
        }
    }
    if (waiting < 100) printf("groups in %d launches only\n", waiting);
    return faults + (waiting < 100);
}

/* What the walk must notice, on a document of 16k: four sections of 2 x 128 items, of which 92 wait in groups of 4. */
int walk_broken_rules()
{
    kern_attention_task_t t = {};
    t.q_rows = 16384;
    t.kv_heads = 8;
    t.q_head = t.d_o_row = t.d_o_head = t.kv_head = 1;
    const items_t items = launched<128>({t}, 4, NO_WINDOW, PROCESSORS).items;
    const struct {
        const char *what;
        items_t items;
        int processors;
        bool ends;
    } cases[] = {
        {"as it is", items, 4, true},
        {"as it is", items, 3, false},
        {"groups into the next section", with_longer_groups(items, 4, true), 8, true},
        {"groups into the next section", with_longer_groups(items, 4, true), 7, false},
        {"a group beyond the last item", with_longer_groups(items, 1, false), PROCESSORS, false},
        {"one group a section", with_one_group(items, 256), 92, true},
        {"one group a section", with_one_group(items, 256), 91, false},
        {"descending keys", with_descending_keys(items), PROCESSORS, false},
    };
    int faults = 0;
    for (const auto &c : cases) {
        if (ends(c.items, c.processors) == c.ends) continue;
        printf("%s: %d of %zu blocks end on %d processors\n", c.what, ended(c.items, c.processors),
               c.items.size(), c.processors);
        faults++;
    }
    return faults;
}

} // namespace

int main()
{
    const int faults = walk_launches() + walk_broken_rules();
    printf("attention_key_walk: %d faults\n", faults);
    return faults > 0;
}
