/* Main program of check.link.<folder>: the folder's whole library is linked into it, with the folders it may use and no
 * others, so that a call against the order of the folders is an undefined symbol. */
int main(void)
{
    return 0;
}
